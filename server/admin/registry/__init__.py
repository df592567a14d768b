"""`/admin/registry`: the models of the home over HTTP, one file per noun. From outside, `routers.registry_routers` is used."""
