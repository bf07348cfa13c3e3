"""One module an experiment: a docstring and `run(config, work) -> Result`. Copy one, and its config, and change it."""

# experiment and config name → (short title, authors, arXiv id); the order is the papers' own
PAPERS: dict[str, tuple[str, str, str]] = {
    "echo_label_errors": ("Label errors in echo segmentation", "Islam, Ruijsink, Reader, King", "2604.12832"),
    "label_flips": ("Right regions, wrong labels: semantic label flips", "Achara et al.", "2604.13326"),
    "cmr_precision": ("Precision of CMR biomarkers from scan–rescan data", "Wickremasinghe et al.", "2603.26789"),
    "shortcut_audit": ("OSCAR: ordinal scoring correlations for attributions", "Achara et al.", "2512.18888"),
    "brain_mri_bias": ("ShortMR: shortcut learning and bias in brain MRI", "Achara et al.", "2509.09558"),
    "fetal_lung_maturity": ("Fetal lung segmentation and maturity from diffusion MRI", "Xiao et al.", "2507.13106"),
    "pet_personalised_prior": (
        "Personalised MR-informed diffusion prior for 3-D PET",
        "Webber, Hammers, King, Reader",
        "2506.03804",
    ),
    "pet_likelihood_schedule": ("Likelihood-scheduled score-based 3-D PET (PET-LiSch)", "Webber et al.", "2412.04339"),
    "pet_pseudo_prior": ("Pseudo-PET by registration and averaging as a prior", "Webber et al.", "2412.04324"),
    "pet_conditional_sampling": ("Conditional diffusion sampling for 3-D PET", "Webber et al.", "2412.04319"),
}
