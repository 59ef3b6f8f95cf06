"""The two numberings of Cityscapes' classes."""

__all__ = ['LABEL_IDS', 'NUM_LABEL_IDS']

# Train id → label id. Training and mmseg count the 19 evaluated classes; Cityscapes' own files,
# its test server and GTA5 count all.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

NUM_LABEL_IDS = 35  # GTA5 has 34 too, a license plate, which is -1 in Cityscapes
