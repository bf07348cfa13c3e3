"""Running experiments: config → work directory → stages → metrics and report. Each module is one of those ideas."""
