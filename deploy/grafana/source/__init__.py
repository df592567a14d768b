"""Source of the Grafana dashboards: panels as data, laid out and written to `deploy/grafana/dashboards` by

    python -m deploy.grafana.source

Edit here, never the JSON. A change that was made in Grafana is carried over by hand.
"""
