from activelr_service.cli import main

main()
