import unittest

import app


def ships(ordered_at, warehouse):
    return app.handler({"order": "o-1", "ordered_at": ordered_at, "warehouse": warehouse}, None)["ships_on"]


class DeliveryCutoffTest(unittest.TestCase):
    def test_local_time_before_the_cutoff(self):
        self.assertEqual(ships("2024-03-04T14:59:00", "hamburg"), "2024-03-04")

    def test_local_time_after_the_cutoff(self):
        self.assertEqual(ships("2024-03-04T15:01:00", "hamburg"), "2024-03-05")

    def test_utc_counts_in_warehouse_time(self):
        self.assertEqual(ships("2024-03-04T13:30:00+00:00", "hamburg"), "2024-03-04")
        self.assertEqual(ships("2024-03-04T14:30:00+00:00", "hamburg"), "2024-03-05")

    def test_west_of_greenwich(self):
        self.assertEqual(ships("2024-03-04T20:30:00+00:00", "austin"), "2024-03-04")

    def test_already_tomorrow_in_the_east(self):
        self.assertEqual(ships("2024-03-04T22:00:00+00:00", "osaka"), "2024-03-05")

    def test_the_cutoff_itself_is_in_time(self):
        self.assertEqual(ships("2024-03-04T15:00:00+01:00", "hamburg"), "2024-03-04")

    def test_unknown_warehouse(self):
        with self.assertRaises(ValueError):
            ships("2024-03-04T15:00:00", "atlantis")


if __name__ == "__main__":
    unittest.main()
