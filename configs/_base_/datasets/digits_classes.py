# What a pixel of the digits on a photograph can be.
classes = (
    'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'photograph',
)  # fmt: skip
# Any colours that differ: mmseg's visualizer needs one a class.
palette = [[(97 * i) % 256, (57 * i + 80) % 256, (31 * i + 160) % 256] for i in range(11)]
