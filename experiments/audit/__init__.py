"""Images, networks, measures, mitigation, figures and tables of `shortcut_audit`."""
