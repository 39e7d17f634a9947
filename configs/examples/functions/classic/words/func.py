def run(text):
    return {"words": len(text.split())}
