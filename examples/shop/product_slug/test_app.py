import unittest

import app


class ProductSlugTest(unittest.TestCase):
    def test_plain(self):
        products = [{"name": "Garden Chair, 2 pcs."}]
        self.assertEqual(app.handler({"products": products}, None), {"slugs": ["garden-chair-2-pcs"]})

    def test_accents_lose_their_marks(self):
        self.assertEqual(app.slug("Crème Brûlée Set"), "creme-brulee-set")

    def test_sharp_s(self):
        self.assertEqual(app.slug("Straßenkarte Köln"), "strassenkarte-koln")

    def test_composed_or_not_is_the_same(self):
        self.assertEqual(app.slug("Cafe\u0301"), app.slug("Caf\u00e9"))

    def test_cut_between_words(self):
        self.assertEqual(app.slug("abcdefghi " * 10), "-".join(["abcdefghi"] * 6))


if __name__ == "__main__":
    unittest.main()
