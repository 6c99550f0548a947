import unittest

import app


class BoxPackingTest(unittest.TestCase):
    def test_full_boxes(self):
        order = {"items": 24, "per_box": 12, "weight_g": 6000}
        self.assertEqual(app.handler(order, None), {"boxes": 2, "grams_per_box": 3000})

    def test_less_than_one_box(self):
        self.assertEqual(app.pack(5, 12, 1250), {"boxes": 1, "grams_per_box": 1250})

    def test_the_rest_needs_a_box_too(self):
        self.assertEqual(app.pack(25, 12, 6000), {"boxes": 3, "grams_per_box": 2000})

    def test_exactly_one_box(self):
        self.assertEqual(app.pack(12, 12, 3000)["boxes"], 1)

    def test_too_heavy(self):
        with self.assertRaises(app.BoxTooHeavy):
            app.pack(12, 12, 20_001)


if __name__ == "__main__":
    unittest.main()
