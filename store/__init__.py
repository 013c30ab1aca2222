"""What outlives a run: fields in zarr, numbers in MLflow, and the provenance of both."""
