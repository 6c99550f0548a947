import unittest

import app


class LoyaltyTierTest(unittest.TestCase):
    def test_between_the_tiers(self):
        customers = [{"id": "a", "points": 300}, {"id": "b", "points": 4999}]
        self.assertEqual(app.handler({"customers": customers}, None), {"tiers": {"a": "silver", "b": "gold"}})

    def test_a_new_customer(self):
        self.assertEqual(app.tier(0), "bronze")

    def test_exactly_enough(self):
        for name, needed in app.TIERS:
            with self.subTest(name):
                self.assertEqual(app.tier(needed), name)

    def test_one_short(self):
        self.assertEqual([app.tier(points) for points in (249, 999, 4999)], ["bronze", "silver", "gold"])

    def test_negative(self):
        with self.assertRaises(ValueError):
            app.tier(-1)


if __name__ == "__main__":
    unittest.main()
