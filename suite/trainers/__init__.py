"""Trainers that come with dislobench, by the names that `model.trainer` takes. Each needs an optional package.

A module has two functions: `train(data, model, **arguments)`, which writes files into the folder `model`, and
`load(model)`, which returns an ASE calculator. `ready()` raises `needed.MissingPackage` where its package is not
installed, and `PACKAGES` names the distributions whose versions decide the result.
"""

TRAINERS = {"gap": "suite.trainers.gap:train", "mace": "suite.trainers.mace:train"}
