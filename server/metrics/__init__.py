"""What Prometheus reads: names and buckets, series that are counted, gauges that are read at each scrape."""
