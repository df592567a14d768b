"""From a teacher's answers to a smaller model: what answers are worth keeping, and how a student is cut from its teacher."""
