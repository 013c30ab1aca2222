"""What is stored of a run: fields in zarr, numbers in MLflow, and the provenance of both."""
