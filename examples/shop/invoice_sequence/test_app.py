import random
import unittest

import app


class InvoiceSequenceTest(unittest.TestCase):
    def test_single_digits(self):
        result = app.handler({"numbers": ["2024-3", "2024-1", "2024-2"]}, None)
        self.assertEqual(result, {"first": "2024-1", "last": "2024-3", "count": 3})

    def test_past_nine(self):
        numbers = [f"2024-{running}" for running in range(1, 13)]
        self.assertEqual(app.check(numbers)[-1], "2024-12")

    def test_over_new_year(self):
        numbers = ["2023-9", "2023-10", "2023-11", "2024-1", "2024-2"]
        shuffled = random.Random(5).sample(numbers, len(numbers))
        self.assertEqual(app.check(shuffled), numbers)

    def test_a_gap_is_found(self):
        with self.assertRaises(app.SequenceGap):
            app.check(["2024-9", "2024-11"])

    def test_a_duplicate_is_found(self):
        with self.assertRaises(app.SequenceGap):
            app.check(["2024-9", "2024-9"])


if __name__ == "__main__":
    unittest.main()
