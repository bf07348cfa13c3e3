"""Attribution: which voxels an output depends on, by pure functions score → (image → map), and how faithful maps are.

score   (*space, channel) → scalar, for one image: `target.class_score`, or any function of yours
map     (*space, channel), or (*space, 1) of a method that does not tell channels apart; map.sum(-1) is spatial
"""
