"""The stages of `suite.pipeline`: the only modules where a spec meets physics."""
