import unittest

import app


def orders(count):
    return [{"id": f"o-{number}", "total": f"{number}.00"} for number in range(1, count + 1)]


class OrderExportTest(unittest.TestCase):
    def test_last_page_not_full(self):
        self.assertEqual(app.handler({"orders": orders(3)}, None)["count"], 3)

    def test_last_page_full(self):
        result = app.handler({"orders": orders(4)}, None)
        self.assertEqual(result, {"count": 4, "rows": ["o-1;1.00", "o-2;2.00", "o-3;3.00", "o-4;4.00"]})

    def test_any_count_and_page_size(self):
        for count in range(1, 12):
            for size in range(1, 6):
                with self.subTest(count=count, size=size):
                    self.assertEqual(len(app.export(orders(count), size)), count)

    def test_no_orders(self):
        self.assertEqual(app.handler({"orders": []}, None), {"count": 0, "rows": []})

    def test_past_the_end(self):
        with self.assertRaises(app.PageOutOfRange):
            app.fetch_page(orders(2), 2, 2)


if __name__ == "__main__":
    unittest.main()
