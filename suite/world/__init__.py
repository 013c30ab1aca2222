"""What no loss weight can change: reference potentials, crystals, elastic fields, cells, equilibria."""
