import unittest

import app


def pay(amount, *lines):
    cart = [{"unit_price": price, "quantity": quantity} for price, quantity in lines]
    return app.handler({"lines": cart, "payment": {"amount": amount}}, None)


class CartTotalTest(unittest.TestCase):
    def test_one_line(self):
        self.assertEqual(pay("12.50", ("12.50", 1)), {"status": "accepted", "total": "12.50"})

    def test_dimes_add_up(self):
        self.assertEqual(pay("0.30", ("0.10", 3))["total"], "0.30")

    def test_odd_cents_add_up(self):
        self.assertEqual(pay("1.15", ("0.23", 5))["total"], "1.15")

    def test_many_lines_add_up(self):
        self.assertEqual(pay("10.10", *[("0.10", 1)] * 101)["total"], "10.10")

    def test_a_cent_short_is_refused(self):
        with self.assertRaises(app.PaymentMismatch):
            pay("0.29", ("0.10", 3))

    def test_a_cent_too_much_is_refused(self):
        with self.assertRaises(app.PaymentMismatch):
            pay("0.31", ("0.10", 3))


if __name__ == "__main__":
    unittest.main()
