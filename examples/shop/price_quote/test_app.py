import unittest

import app


def cents(*items):
    wanted = [{"sku": sku, "currency": currency} for sku, currency in items]
    return [quote["cents"] for quote in app.handler({"items": wanted}, None)["quotes"]]


class PriceQuoteTest(unittest.TestCase):
    def setUp(self):
        app._cache.clear()

    def test_list_price(self):
        self.assertEqual(cents(("TSH-0042", "EUR")), [1990])

    def test_two_currencies(self):
        self.assertEqual(
            cents(("TSH-0042", "EUR"), ("TSH-0042", "USD"), ("TSH-0042", "GBP")), [1990, 2149, 1691]
        )

    def test_two_products(self):
        self.assertEqual(cents(("TSH-0042", "USD"), ("HAT-0007", "USD")), [2149, 2646])

    def test_the_second_time_comes_from_the_cache(self):
        loads = []

        def load(sku, currency):
            loads.append((sku, currency))
            return app.load_quote(sku, currency)

        for currency in ("EUR", "USD", "EUR", "USD"):
            self.assertEqual(app.quote("MUG-0003", currency, load)["currency"], currency)
        self.assertEqual(loads, [("MUG-0003", "EUR"), ("MUG-0003", "USD")])


if __name__ == "__main__":
    unittest.main()
