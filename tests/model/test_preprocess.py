import torch

from model.config import Preprocessing
from model.preprocess import normalise, resize


def test_resize_to_half_averages():
    """Antialiased bilinear at half size weighs neighbours 1 3 3 1; in the middle of equal halves nothing changes."""
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[:, :, 4:] = 200
    # The window of column 1 (of 4) covers columns 1 to 4, of which only the last, weight 1 of 8, is bright.
    expected = torch.tensor([0, 25, 175, 200], dtype=torch.uint8).expand(3, 4, 4)
    assert torch.equal(resize(image, 4), expected)


def test_resize_leaves_the_networks_size_alone():
    image = torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize(image, 300), image)


def test_resize_squeezes_any_aspect_ratio_and_one_pixel():
    for height_px, width_px in ((40, 700), (700, 40), (1, 1)):
        resized = resize(torch.full((3, height_px, width_px), 77, dtype=torch.uint8), 300)
        assert resized.shape == (3, 300, 300)
        assert resized.dtype == torch.uint8
        assert (resized == 77).all()


def test_resize_does_not_ask_how_pixels_lie_in_memory():
    planar = torch.randint(0, 256, (3, 90, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    channels_last = planar.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    difference = resize(planar, 60).int() - resize(channels_last, 60).int()
    assert difference.abs().max() <= 1  # the two kernels round apart


def test_normalise():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    preprocessing = Preprocessing(mean=(0.5, 0.2, 0.5), std=(0.5, 0.25, 0.125))
    expected = torch.tensor([-0.5 / 0.5, 0.0, 0.5 / 0.125]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalise(images, preprocessing, torch.float32), expected)


def test_normalised_is_channels_last_in_the_type_wanted():
    normalised = normalise(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), Preprocessing(), torch.bfloat16)
    assert normalised.dtype == torch.bfloat16
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_the_defaults_give_the_caffe_weights_their_range():
    white = normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), Preprocessing(), torch.float32)
    expected = torch.tensor([255 * (1 - 0.48235), 255 * (1 - 0.45882), 255 * (1 - 0.40784)])
    torch.testing.assert_close(white.flatten(), expected)


def test_a_jpeg_at_a_fraction_stays_twice_as_large_as_the_input():
    """A crop of 0.3 of 2000 pixels has 600."""
    scaled = Preprocessing(jpeg_dct_scaling=True)
    assert (scaled.min_side_px(300), scaled.min_side_px(512), scaled.min_side_px(300, crop_min=0.3)) == (
        600,
        1024,
        2000,
    )
    assert Preprocessing().min_side_px(300) is None
