"""Registration: grids and transforms in millimetres, warps in voxels, similarities, regularisers, optimisation."""
