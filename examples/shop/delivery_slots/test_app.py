import unittest

import app


class DeliverySlotsTest(unittest.TestCase):
    def test_clock(self):
        self.assertEqual([app.clock(0), app.clock(545)], ["00:00", "09:05"])

    def test_a_morning(self):
        event = {"day": "mon", "opens": 540, "closes": 720, "length": 60}
        expected = ["09:00-10:00", "10:00-11:00", "11:00-12:00"]
        self.assertEqual(app.handler(event, None), {"day": "mon", "slots": expected})

    def test_a_short_rest_is_not_offered(self):
        self.assertEqual(app.slots(540, 710, 60), ["09:00-10:00", "10:00-11:00"])

    def test_one_slot(self):
        self.assertEqual(app.slots(540, 600, 60), ["09:00-10:00"])

    def test_closed_before_the_first_slot_ends(self):
        self.assertEqual(app.slots(540, 570, 60), [])


if __name__ == "__main__":
    unittest.main()
