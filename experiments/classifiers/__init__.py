"""What the experiments on shortcut learning share: training and evaluation of classifiers."""
