"""The endpoints of the service: rerank as the field speaks it, search, jobs, traces, and what operating it takes."""
