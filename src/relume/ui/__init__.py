"""The page: runs in a browser, live, and the same as one offline file. Everything shown comes from `answers`.

``answers`` says what there is to show as JSON and numbers, ``static`` draws it, ``server`` brings it to a browser while runs
train, ``report`` puts it all into one file.
"""
