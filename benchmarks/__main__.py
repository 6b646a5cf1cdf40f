from benchmarks.command import main

if __name__ == "__main__":  # the processes of the libraries import this file too
    main()
