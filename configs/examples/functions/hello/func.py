"""Parameters in, a result out."""


def main(params):
    print("somebody is", params.get("name", "nobody"))
    return {"hello": params.get("name", "world")}
