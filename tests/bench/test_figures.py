from PIL import Image

from miram.bench.figures import draw_steps


def test_steps_of_methods_of_ones_own_are_drawn_as_well(tmp_path):
    costs = {"seconds": 1.0, "kept_mib": 10.0, "predicted_kept_mib": 11.0, "images": 2}
    methods = ("miram-nystrom", "mine", "hers", "theirs")
    steps = [{"method": method, "kind": "nystrom", "side": side, **costs} for method in methods for side in (112, 224)]
    machine = {"gpu": None, "processor": "a processor", "torch": "2"}
    draw_steps({"steps": steps, "machine": machine, "precision": "32-true"}, tmp_path / "steps.png")
    with Image.open(tmp_path / "steps.png") as picture:
        assert picture.size == (1800, 800)
