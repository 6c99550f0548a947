import unittest

import app

NONE = {"count": 0, "average": None, "per_star": {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0}}


class ReviewSummaryTest(unittest.TestCase):
    def test_average(self):
        result = app.handler({"product": "p", "reviews": [{"stars": 5}, {"stars": 4}, {"stars": 4}]}, None)
        self.assertEqual((result["count"], result["average"]), (3, 4.3))

    def test_counts_per_star(self):
        result = app.summary([{"stars": 5}, {"stars": 1}, {"stars": 5}])
        self.assertEqual(result["per_star"], {"1": 1, "2": 0, "3": 0, "4": 0, "5": 2})

    def test_no_reviews_yet(self):
        self.assertEqual(app.handler({"product": "p", "reviews": []}, None), {"product": "p", **NONE})

    def test_none_published(self):
        self.assertEqual(app.summary([{"stars": 1, "published": False}]), NONE)


if __name__ == "__main__":
    unittest.main()
