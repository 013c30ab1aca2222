"""What people see: tables, pages, figures, reports. Nothing here computes a number of a run."""
