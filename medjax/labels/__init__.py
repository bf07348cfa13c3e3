"""Labels that may be wrong: errors; probe of a network in training → scores → thresholds → repair; the audit."""
