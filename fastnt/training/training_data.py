"""The recipe's view of a data set: training list, held-out images and test set, each with a loader."""



EVALUATION_BATCH = 512
