"""dislobench: can an interatomic potential be trusted with dislocations, and what in its training decides?

The package reads in the order of the method: `suite.world` (what no loss weight can change), `suite.model`
(what is fitted), `suite.judge` (what is concluded), `suite.study` (many runs). Begin with `suite.pipeline`.
"""
