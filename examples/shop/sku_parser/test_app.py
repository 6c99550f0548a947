import unittest

import app


class SkuParserTest(unittest.TestCase):
    def test_plain(self):
        expected = {"family": "TSH", "number": 42, "colour": "blue", "size": "XL"}
        self.assertEqual(app.handler({"skus": ["TSH-0042-BLUE-XL"]}, None), {"items": [expected]})

    def test_colour_of_two_words(self):
        self.assertEqual(app.parse("TSH-0042-NAVY-BLUE-S")["colour"], "navy blue")

    def test_colour_of_three_words(self):
        parts = app.parse("HAT-0007-VERY-DARK-RED-M")
        self.assertEqual((parts["colour"], parts["size"]), ("very dark red", "M"))

    def test_not_a_sku(self):
        for sku in (
            "TSH-42-BLUE-M",
            "TSH-0042--M",
            "TSH-0042-blue-M",
            "TSH-0042-BLUE-XM",
            "TSH-0042-BLUE--M",
            "",
        ):
            with self.subTest(sku), self.assertRaises(ValueError):
                app.parse(sku)


if __name__ == "__main__":
    unittest.main()
