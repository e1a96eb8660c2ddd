import pytest

from pipeline.exports.names import MAX_BYTES, ImageNames, stem_of


def names(*uris: str, folder: str = "s3://b/photos/") -> list[str]:
    of_uri = ImageNames(folder)
    return [of_uri.name(uri) for uri in uris]


def test_the_path_below_the_common_folder_is_one_name():
    assert names("s3://b/photos/a.jpg", "s3://b/photos/site-1/c.1/a.jpg") == ["a.jpg", "site-1__c.1__a.jpg"]
    assert names("/x/a.jpg", "http://h/y.png", folder="") == ["x__a.jpg", "http___h__y.png"]


def test_each_name_has_the_suffix_of_an_image():
    """Readers take files by it. Of a web page's query, nothing is a name."""
    uris = ("http://h/a.jpg?w=800", "http://h/b?format=png", "http://h/c.PNG#x", "http://h/d.1")
    assert names(*uris, folder="http://h/") == ["a.jpg", "b.jpg", "c.PNG", "d.1.jpg"]
    assert names("s3://b/photos/a?b.jpg") == ["a_b.jpg"]


def test_no_two_labels_have_one_name():
    uris = ("a.jpg", "a.png", "A.jpg", "a-2.jpg", "b", "b.jpg", "x/y.jpg", "x__y.jpg")
    found = names(*(f"s3://b/photos/{uri}" for uri in uris))
    assert found == ["a.jpg", "a-2.png", "A-3.jpg", "a-2-2.jpg", "b.jpg", "b-2.jpg", "x__y.jpg", "x__y-2.jpg"]
    assert len({stem_of(name).casefold() for name in found}) == len(uris)


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "a/../../b.jpg", "/x.jpg", "a\\..\\b.jpg", "c:\n\0.jpg", "./.", "..", ""]
)
def test_no_name_leads_out_of_the_folder(key):
    (found,) = names(f"s3://b/photos/{key}")
    assert found
    assert not set(found) & set("/\\:\n\0")
    assert found not in (".", "..")


def test_long_names_keep_their_ends_apart():
    long = "ä" * 200
    found = names(f"s3://b/photos/{long}/1.jpg", f"s3://b/photos/{long}x/1.jpg", f"s3://b/photos/{'x' * 300}")
    assert len(set(found)) == 3
    assert all(len(name.encode()) <= MAX_BYTES for name in found)
    assert found[0].endswith("__1.jpg")


@pytest.mark.parametrize(("name", "stem"), [("a.jpg", "a"), ("a", "a"), (".jpg", ".jpg"), ("a.b.c", "a.b")])
def test_stems(name, stem):
    assert stem_of(name) == stem
