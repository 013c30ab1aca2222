"""The commands of `suite.cli`: each takes the parsed options and returns an exit code."""
