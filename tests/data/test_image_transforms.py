"""How images become inputs: as the libraries prepare them for their weights, and varied as the job says."""

import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.models import get_model_weights
from torchvision.transforms import v2
from transformers import BitImageProcessor, ConvNextImageProcessor, ViTImageProcessor

from activelr_service.config.data import CIFAR10DataConfig, ImageFolderDataConfig
from activelr_service.data import inspect_data
from activelr_service.data.image_transforms import train_transform, val_transform, warn_of_small_images
from activelr_service.models.timm_models import fetch_weights as timm_weights
from activelr_service.models.torchvision_weights import fetch_weights as torchvision_weights
from activelr_service.models.transformers_image import fetch_weights as transformers_weights
from tests.data.generate_images import write_images
from tests.models.test_pretrained import job_with


def images(**keys):
    return ImageFolderDataConfig(root="x", **keys)


def photo(width=90, height=70, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b3", "vit_l_16", "vgg16"])
def test_torchvisions_images_are_prepared_as_its_weights_want_it(name):
    keys = torchvision_weights(job_with({"type": "torchvision", "name": name, "weights": __file__}).model).values
    expected = get_model_weights(name).DEFAULT.transforms()(photo())
    torch.testing.assert_close(torch.Tensor(val_transform(images(**keys))(photo())), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["test_vit", "resnet50.a1_in1k", "convnext_tiny", "beit_base_patch16_224"])
def test_timms_images_are_prepared_as_its_weights_want_it(name):
    keys = timm_weights(job_with({"type": "timm", "name": name, "pretrained": __file__}).model).values
    reference = timm.data.create_transform(
        **timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    )
    found = val_transform(images(**keys))(photo())
    torch.testing.assert_close(found, reference(photo()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(size={"height": 32, "width": 32}, resample=3),
        ViTImageProcessor(size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, do_normalize=False),
        BitImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 32, "width": 32}),
        ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.5),
        ConvNextImageProcessor(size={"shortest_edge": 384}),
    ],
    ids=["squashed", "scaled", "cropped", "convnext", "convnext-large"],
)
def test_images_of_transformers_are_prepared_as_their_processor_does(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    keys = transformers_weights(job_with({"type": "transformers_image", "path": str(tmp_path)}).model).values
    smooth = photo().resize((60, 50), Image.Resampling.BICUBIC)
    expected = processor(smooth, return_tensors="pt")["pixel_values"][0]
    found = val_transform(images(**keys))(smooth)
    assert found.shape == expected.shape
    step = 1 / 255 / min(keys["std"])  # Pillow and torch round what they resize to whole pixel values
    assert (found - expected).abs().max() <= 2.01 * step


def test_a_job_without_new_keys_has_the_crops_and_flips_of_torchvisions_recipes():
    config = images(image_size=32)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    crop = v2.Compose([v2.RandomResizedCrop(32, antialias=True), v2.RandomHorizontalFlip(), *finish])
    center = v2.Compose([v2.Resize(round(32 * 256 / 224), antialias=True), v2.CenterCrop(32), *finish])
    for augment in (None, "standard"):
        torch.manual_seed(5)
        found = [train_transform(config.model_copy(update={"augment": augment}))(photo()) for _ in range(4)]
        torch.manual_seed(5)
        assert all(torch.equal(image, crop(photo())) for image in found)
    assert torch.equal(val_transform(config)(photo()), center(photo()))
    assert all(round(size / 0.875) == round(size * 256 / 224) for size in range(8, 4097))


def test_light_augmentation_shifts_and_never_flips_and_none_changes_nothing():
    gradient = Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    light = train_transform(images(image_size=64, augment="light"))
    seen = [light(gradient) for _ in range(20)]
    assert all((image[:, :, 1:] >= image[:, :, :-1]).all() for image in seen)  # darker on the left, always
    assert len({tuple(image[0, 0].tolist()) for image in seen}) > 5
    plain = images(image_size=64, augment="none")
    assert torch.equal(train_transform(plain)(photo()), val_transform(plain)(photo()))
    for transform in (light, train_transform(plain), val_transform(plain)):
        assert transform(None) is None


@pytest.mark.parametrize(
    ("size", "image_size", "augment", "is_small"),
    [(28, 224, None, True), (300, 224, None, False), (300, 32, None, True), (28, 32, "light", False)],
)
def test_small_images_get_a_warning_unless_the_job_says_how_they_vary(size, image_size, augment, is_small):
    file = io.BytesIO()
    photo(size, size).save(file, "PNG")
    found = warn_of_small_images(images(image_size=image_size, augment=augment), [file, io.BytesIO(b"not an image")])
    assert len(found) == is_small
    if is_small:
        assert (
            f"the images are small ({size} x {size} pixels, shown to the model as {image_size} x {image_size})"
            in found[0]
        )
        assert "set data.augment to light" in found[0]


def test_the_warning_of_small_images_is_among_those_of_a_folder(tmp_path):
    write_images(tmp_path)
    config = ImageFolderDataConfig(root=str(tmp_path), image_size=64)
    assert any("the images are small (30 x 20 pixels" in warning for warning in inspect_data(config).warnings)


def test_cifar_reads_the_words_and_the_older_true_and_false():
    for given, kept in ((True, True), ("standard", True), (False, False), ("none", False), ("light", "light")):
        assert CIFAR10DataConfig(root="x", augment=given).augment == kept
