import unittest

import app

AUSTIN = {
    "name": "Ada King",
    "street": "12 Congress Ave",
    "city": "Austin",
    "state": "TX",
    "postcode": "78701",
    "country": "United States",
}
HAMBURG = {
    "name": "Jan Otto",
    "street": "Elbchaussee 7",
    "city": "Hamburg",
    "postcode": "20095",
    "country": "Germany",
}


class ShippingLabelTest(unittest.TestCase):
    def test_with_a_state(self):
        lines = ["Ada King", "12 Congress Ave", "Austin, TX 78701", "UNITED STATES"]
        self.assertEqual(
            app.handler({"order": "o-1", "address": AUSTIN}, None), {"order": "o-1", "lines": lines}
        )

    def test_with_a_unit(self):
        self.assertEqual(app.label({**AUSTIN, "unit": "Apt 4"})[2], "Apt 4")

    def test_a_country_without_states(self):
        self.assertEqual(app.label(HAMBURG), ["Jan Otto", "Elbchaussee 7", "Hamburg, 20095", "GERMANY"])

    def test_an_empty_state(self):
        self.assertEqual(app.label({**HAMBURG, "state": ""})[2], "Hamburg, 20095")

    def test_long_lines_are_cut(self):
        self.assertEqual(len(app.label({**AUSTIN, "street": "x" * 80})[1]), app.MAX_LINE)


if __name__ == "__main__":
    unittest.main()
