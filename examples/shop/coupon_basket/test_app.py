import unittest

import app


def totals(*baskets):
    return app.handler({"baskets": [{"total_cents": t, "codes": c} for t, c in baskets]}, None)["totals"]


class CouponBasketTest(unittest.TestCase):
    def test_no_coupon(self):
        self.assertEqual(totals((2000, [])), [2000])

    def test_never_below_zero(self):
        self.assertEqual(app.redeem(200, ["SPRING3"]), 0)

    def test_the_same_code_in_two_baskets(self):
        self.assertEqual(totals((2000, ["WELCOME5"]), (3000, ["WELCOME5"])), [1500, 2500])

    def test_two_codes_in_one_basket(self):
        self.assertEqual(totals((2000, ["WELCOME5", "FREESHIP"])), [1010])

    def test_twice_in_one_basket_is_refused(self):
        with self.assertRaises(app.CouponAlreadyUsed):
            app.redeem(2000, ["FREESHIP", "FREESHIP"])

    def test_a_refused_basket_leaves_no_trace(self):
        with self.assertRaises(app.CouponAlreadyUsed):
            app.redeem(2000, ["SPRING3", "SPRING3"])
        self.assertEqual(app.redeem(2000, ["SPRING3"]), 1700)


if __name__ == "__main__":
    unittest.main()
