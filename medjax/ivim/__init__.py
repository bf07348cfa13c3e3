"""Intravoxel incoherent motion: perfusion and diffusion from diffusion-weighted MRI."""
