"""Durable work beside serving: jobs, their plans, their processes. No HTTP here, and no tensors outside `jobs/tasks/`.

The gateway uses `service`, `store`, and the values that these take and give: `job`, `task`, `fields`, `permissions`, `pipelines`.
"""
