"""Many runs: cached stages, single cases, figures. Side effects live here, in `suite.cli` and in `store`."""
