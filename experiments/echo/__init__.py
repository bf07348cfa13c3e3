"""Tables and figures of `echo_label_errors`."""
