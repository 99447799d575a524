"""What the file beside an exported model says of its input."""

from activelr_service.export.description import PREPROCESSING


def test_the_description_says_how_a_size_is_rounded_and_how_pixels_are_scaled():
    for part in ("round(image_size / crop_share)", "divided by 255", "(value - mean) / std", "on white", "EXIF"):
        assert part in PREPROCESSING["image"]
