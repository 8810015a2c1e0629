"""Workers that run jobs and may crash or hang without taking the run along: processes here, actors of a Ray cluster."""
