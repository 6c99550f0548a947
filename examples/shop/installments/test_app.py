import unittest
from decimal import Decimal

import app


class InstallmentsTest(unittest.TestCase):
    def test_even(self):
        self.assertEqual(app.handler({"amount": "90.00", "months": 3}, None), {"instalments": ["30.00"] * 3})

    def test_one_cent_over(self):
        self.assertEqual(
            app.plan(Decimal("100.00"), 3), [Decimal("33.34"), Decimal("33.33"), Decimal("33.33")]
        )

    def test_two_cents_over(self):
        self.assertEqual(
            app.plan(Decimal("20.00"), 6)[:3], [Decimal("3.34"), Decimal("3.34"), Decimal("3.33")]
        )

    def test_always_adds_up(self):
        for cents in range(1, 1000, 7):
            for months in (1, 2, 3, 6, 7, 12):
                parts = app.plan(Decimal(cents) / 100, months)
                with self.subTest(cents=cents, months=months):
                    self.assertEqual(sum(parts), Decimal(cents) / 100)
                    self.assertLessEqual(max(parts) - min(parts), app.CENT)
                    self.assertEqual(parts, sorted(parts, reverse=True))


if __name__ == "__main__":
    unittest.main()
